"""Views of a saved Report: page, terminal, Markdown, JUnit. None knows more than the document does."""
