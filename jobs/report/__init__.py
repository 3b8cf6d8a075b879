"""The gallery of an output: its data files, their refresh, and the page that shows them."""
