# 2: the name that the database which was there was kept under.
enter()
if os.path.exists(sys.argv[2]):
    remove_sides(NAME)   # before: a journal beside another database would be played into that
    os.rename(sys.argv[2], NAME)
    sync(".")
