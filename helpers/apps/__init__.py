"""Programs for people: the chat in three forms, training with several processes, a folder of texts as token ids."""
