"""Training of translation models, and Editable Training."""
