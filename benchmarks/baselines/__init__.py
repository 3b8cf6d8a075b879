"""The same clips without the farm: a plain script, and Ray Data; and the farm beside them."""
