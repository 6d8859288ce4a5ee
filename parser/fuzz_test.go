package parser

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http/httputil"
	"reflect"
	"strings"
	"testing"
)

// randomCuts are places to cut n bytes at, all of them for a zero seed.
func randomCuts(raw string, seed uint64) []int {
	if seed == 0 {
		return everyPrefix(raw)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	var cuts []int
	for at := 0; at < len(raw); at += 1 + random.IntN(1+random.IntN(40)) {
		cuts = append(cuts, at)
	}
	return cuts
}

// randomLimits are the default ones for most seeds, and such as short inputs
// reach for the others.
func randomLimits(seed uint64) *Limits {
	var l Limits
	if seed%3 == 2 {
		random := rand.New(rand.NewPCG(seed, 1))
		for _, limit := range []*int{
			&l.Method, &l.Target, &l.Path, &l.Query, &l.Fragment, &l.HeaderName, &l.HeaderValue,
			&l.HeaderCount, &l.Head, &l.ChunkLine, &l.ChunkExcess, &l.Trailer,
		} {
			if random.IntN(3) == 0 {
				*limit = random.IntN(50) - 1
			}
		}
	}
	l = l.WithDefaults()
	return &l
}

func seedRequests(add func(raw string)) {
	for _, test := range goodRequests {
		add(test.raw)
	}
	for _, test := range badRequests {
		add(test.raw + test.rest)
	}
	for _, raw := range []string{wrkRequest, browser8Request, chromeRequest, headers30Request()} {
		add(raw)
	}
}

// FuzzParse: whatever the bytes are, and however they come, the result is the
// same, and everything lies where it should.
func FuzzParse(f *testing.F) {
	seedRequests(func(raw string) {
		f.Add(raw, uint64(0))
		f.Add(raw, uint64(2))
	})
	f.Fuzz(func(t *testing.T, raw string, seed uint64) {
		limits := randomLimits(seed)
		var h Head
		got, err := parseAt(&h, raw, limits, randomCuts(raw, seed)...)
		want, wantErr := parseAt(&h, raw, limits)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("in pieces: %+v, %v\nwhole: %+v, %v", got, err, want, wantErr)
		}
		var e *Error
		switch {
		case err == nil:
			if !strings.HasSuffix(raw[:want.N], "\r\n\r\n") || over(want.N, limits.Head) || over(len(want.Fields), limits.HeaderCount) {
				t.Errorf("ends after %d bytes: %+v", want.N, want)
			}
			if want.Chunked && want.ContentLength >= 0 {
				t.Error("two framings")
			}
		case errors.As(err, &e):
			if e.Status != reasons[e.Reason].status || len(e.Detail) > 4*maxDetail {
				t.Errorf("%+v", e)
			}
		case err != ErrIncomplete:
			t.Errorf("%v", err)
		}
	})
}

// FuzzChunked does the same for bodies. What we accept, net/http's reader must
// accept with the same data.
func FuzzChunked(f *testing.F) {
	for _, test := range goodBodies {
		f.Add(test.raw, uint64(1))
		f.Add(test.raw+"0\r\n\r\n", uint64(2))
	}
	for _, test := range badBodies {
		f.Add(test.raw+test.rest, uint64(1))
		f.Add(test.raw+test.rest, uint64(2))
	}
	f.Fuzz(func(t *testing.T, raw string, seed uint64) {
		limits := randomLimits(seed)
		var d ChunkedDecoder
		got, err := decodeAt(&d, raw, limits, randomCuts(raw, seed)...)
		want, wantErr := decodeAt(&d, raw, limits)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("in pieces: %+v, %v\nwhole: %+v, %v", got, err, want, wantErr)
		}
		if err != io.EOF || seed%3 == 2 {
			return
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(raw)))
		if err != nil || !bytes.Equal(theirs, []byte(want.Data)) {
			t.Errorf("net/http reads %q, %v; we %q", theirs, err, want.Data)
		}
	})
}
