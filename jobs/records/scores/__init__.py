"""The figures of clips by measures, each a record beside the clip's own."""
