"""Prefect flows: composition of the library's stages. The only importer of prefect."""
