-- args: method, bytes of the body, requests in one write. wrk counts each answer.
init = function(args)
  wrk.method = args[1]
  local body, pipeline = tonumber(args[2]), tonumber(args[3])
  if body > 0 then
    wrk.body = string.rep("x", body)
  end
  if pipeline > 1 then
    local batch = string.rep(wrk.format(), pipeline)
    request = function()
      return batch
    end
  end
end
