"""Reports in words: Markdown for MLflow and Prefect, plain text for the terminal."""
