"""The gateway in front of users: answers like OpenAI's API, records, takes feedback."""
