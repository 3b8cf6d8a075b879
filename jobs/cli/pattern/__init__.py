"""The pattern that commands share: typed options, an opened manifest, wording."""
