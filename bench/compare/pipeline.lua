-- Sends args[1] requests in one write, with args[2] header fields each; wrk counts each answer.
local fields = {
  {"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
  {"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
  {"Accept-Language", "en-US,en;q=0.5"}, {"Accept-Encoding", "gzip, deflate, br, zstd"},
  {"Connection", "keep-alive"}, {"Cookie", "session=0123456789abcdef0123456789abcdef"},
  {"Upgrade-Insecure-Requests", "1"}, {"Referer", "https://www.example.com/articles/2026"},
  {"Cache-Control", "max-age=0"}, {"Sec-Fetch-Dest", "document"}, {"Sec-Fetch-Mode", "navigate"},
  {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-User", "?1"}, {"Priority", "u=0, i"}, {"Dnt", "1"},
  {"Te", "trailers"}, {"If-None-Match", '"abc123def456"'}, {"If-Modified-Since", "Wed, 25 Nov 2026 08:00:00 GMT"},
  {"X-Forwarded-For", "203.0.113.7, 198.51.100.2"}, {"X-Forwarded-Proto", "https"},
  {"X-Forwarded-Host", "www.example.com"}, {"X-Request-Id", "5f1c9f8e-2b7a-4c1d-9d53-6f0f3f1f2a11"},
  {"X-Real-Ip", "203.0.113.7"}, {"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
  {"Tracestate", "vendor=value"}, {"X-Own-One", "one"}, {"X-Own-Two", "two"}, {"X-Own-Three", "three"},
  {"Authorization", "Bearer 0123456789abcdef0123456789abcdef"},
}

init = function(args)
  for i = 1, tonumber(args[2]) - 1 do -- wrk sends Host itself
    wrk.headers[fields[i][1]] = fields[i][2]
  end
  local requests = {}
  for i = 1, tonumber(args[1]) do
    requests[i] = wrk.format("GET", "/")
  end
  batch = table.concat(requests)
end

request = function() return batch end
