std = "lua54"
self = false
max_line_length = 140
max_comment_line_length = 200
exclude_files = { "lib/meta", "build" }
files["spec"] = { std = "+busted", max_line_length = 160 }
