"""The ground floor: names, errors and file writing that every other floor uses. Imports nothing of moir."""
