"""The peers, each in the best settings that its documentation names, with the same application around it."""
