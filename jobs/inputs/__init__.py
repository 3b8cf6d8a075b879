"""The images and videos that rows name: where they lie, and the proof that they can be used."""
