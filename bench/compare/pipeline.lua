-- Sends args[1] requests in one write; wrk counts each answer.
init = function(args)
  local requests = {}
  for i = 1, tonumber(args[1]) do
    requests[i] = wrk.format("GET", "/")
  end
  batch = table.concat(requests)
end

request = function()
  return batch
end
