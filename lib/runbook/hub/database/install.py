# 2: the new file in the folder, 3: its SHA-256, 4: the name that the database there keeps.
enter()
must_be(sys.argv[2], sys.argv[3])
forget_servers(sys.argv[2])
settle()
put_in_place(sys.argv[2], sys.argv[4])
