"""The devices of a run beside other runs on the cluster: claims, their board, the fair split."""
