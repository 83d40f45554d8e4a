local states = require "runbook.states"

describe("the state tables", function()
  for kind, machine in pairs(states) do
    if type(machine) == "table" then
      it(kind .. ": every state that is led to is listed, with what resume, rollback and sweep do", function()
        for state, events in pairs(machine.events) do
          for who in pairs { resume = 1, rollback = 1, sweep = 1 } do
            assert.is_string(machine[who][state], ("%s %s: %s"):format(kind, state, who))
          end
          for event, next_state in pairs(events) do
            assert.is_true(machine.all[next_state] or false, ("%s/%s leads to %s"):format(state, event, next_state))
          end
        end
      end)

      it(kind .. ": every state can be reached from the first", function()
        local seen, todo = { [machine.first] = true }, { machine.first }
        while #todo > 0 do
          for _, next_state in pairs(machine.events[table.remove(todo)]) do
            if not seen[next_state] then
              seen[next_state] = true
              todo[#todo + 1] = next_state
            end
          end
        end
        for state in pairs(machine.all) do
          assert.is_true(seen[state] or false, state)
        end
      end)
    end
  end

  it("refuse what they do not list", function()
    assert.is_nil(states.after("step", "pending", "finish"))
    assert.equal("running", states.after("step", nil, "start"))
  end)
end)
