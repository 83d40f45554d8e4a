enter()
settle()
