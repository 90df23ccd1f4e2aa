"""The model classes that SGLang imports at start (SGLANG_EXTERNAL_MODEL_PACKAGE).

Without this list it imports its 270 model modules, seconds of every start, to find one class. A model that is
not here still works: SGLang then imports them all.
"""
