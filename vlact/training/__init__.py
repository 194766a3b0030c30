from vlact._renamed import names_of

__getattr__ = names_of(__name__)
