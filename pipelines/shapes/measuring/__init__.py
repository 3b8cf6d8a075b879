"""Programs that measure the Shapes models. They are not part of the wheel."""
