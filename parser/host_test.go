package parser

import "testing"

func TestHost(t *testing.T) {
	for _, test := range []struct {
		host          string
		valid, inHead bool // inHead: as the value of a Host field
	}{
		{"", true, true},
		{"h", true, true},
		{"h:", true, true},
		{"h:80", true, true},
		{"h:00080", true, true},
		{"h:99999", true, true}, // RFC 3986 has no largest port
		{"0.0.0.0=5000", true, true},
		{"a,b;c=d", true, true},
		{"a%c3%A9:1", true, true},
		{"h.:1", true, true},
		{"[::1]", true, true},
		{"[::1]:", true, true},
		{"[::1]:80", true, true},
		{"[::ffff:1.2.3.4]", true, true},
		{"[fe80::1%25en0]:80", true, true},
		{"::1", false, true},
		{"fe80::1:2", false, true},
		{"::1%en0", false, true},
		{"::1%\x80", false, false},
		{"::1%a b", false, false},
		{"[::1%a/b]", false, false},

		{":80", false, false},
		{":", false, false},
		{"h:a", false, false},
		{"h:80a", false, false},
		{"h:+80", false, false},
		{"h:-1", false, false},
		{"h:80:80", false, false},
		{"h::80", false, false},
		{"h:80,h:80", false, false},
		{"a:b@c", false, false},
		{"[::1", false, false},
		{"::1]", false, false},
		{"[::1]80", false, false},
		{"[::1]x:80", false, false},
		{"[::1]:x", false, false},
		{"[::1]:80:80", false, false},
		{"[::1]]", false, false},
		{"[[::1]]", false, false},
		{"[]", false, false},
		{"[h]", false, false},
		{"[1.2.3.4]", false, false},
		{"[v1.h]", false, false},
		{"[fe80::1%]", false, false},
		{"a[b]", false, false},
		{"a]:80", false, false},
		{"%", false, false},
		{"h%", false, false},
		{"h%4", false, false},
		{"h%4:80", false, false},
		{"h%zz", false, false},
		{"h%4[", false, false},
	} {
		if ValidHost(test.host) != test.valid || ValidHost([]byte(test.host)) != test.valid {
			t.Errorf("ValidHost(%q) is not %v", test.host, test.valid)
		}
		raw := "GET / HTTP/1.1\r\nHost: " + test.host + "\r\n\r\n"
		if _, err := new(Head).Parse([]byte(raw), nil); (err == nil) != test.inHead {
			t.Errorf("%q: %v", raw, err)
		}
		raw = "GET x://" + test.host + "/ HTTP/1.1\r\nHost: h\r\n\r\n"
		if _, err := new(Head).Parse([]byte(raw), nil); (err == nil) != (test.valid && test.host != "") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}
