"""The page of a run: its facts as one JSON document, and one HTML file that shows them without a network."""
