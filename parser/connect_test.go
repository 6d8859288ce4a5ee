package parser

import "testing"

// CONNECT has an authority; net/rpc's client asks for a path, and ends its
// request with two bare LFs.
func TestConnect(t *testing.T) {
	for _, test := range []struct {
		raw    string
		status int // 0: accepted
		form   TargetForm
	}{
		{"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 0, AuthorityForm},
		{"CONNECT /rpc HTTP/1.1\r\nHost: h\r\n\r\n", 0, OriginForm},
		{"CONNECT /rpc HTTP/1.0\n\n", 0, OriginForm},
		{"CONNECT /rpc HTTP/1.0\nHost: h\n\n", 400, OriginForm},
		{"CONNECT /rpc HTTP/1.1\n\n", 400, OriginForm},
		{"CONNECT h:443 HTTP/1.0\n\n", 400, AuthorityForm},
		{"GET /rpc HTTP/1.0\n\n", 400, OriginForm},
		{"CONNECT  HTTP/1.1\r\nHost: h\r\n\r\n", 400, 0},
		{"CONNECT ?a HTTP/1.1\r\nHost: h\r\n\r\n", 400, 0},
	} {
		for cut := range len(test.raw) {
			var h Head
			n, err := h.Parse([]byte(test.raw[:cut]), nil)
			if err == ErrIncomplete {
				n, err = h.Parse([]byte(test.raw), nil)
			}
			if test.status == 0 {
				if err != nil || n != len(test.raw) || h.Form != test.form || h.ContentLength != -1 {
					t.Fatalf("%q cut at %d: %d bytes of form %d, length %d, %v", test.raw, cut, n, h.Form, h.ContentLength, err)
				}
			} else if bad, ok := err.(*Error); !ok || bad.Status != test.status {
				t.Fatalf("%q cut at %d: %v, want %d", test.raw, cut, err, test.status)
			}
		}
	}
}
