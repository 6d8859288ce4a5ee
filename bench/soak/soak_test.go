package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test program be the server's process that it starts, as
// soak does.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], "-serve") {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestSoak is a short run of everything.
func TestSoak(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := soak(settings{duration: 5 * time.Second, settle: 10 * time.Second, seed: 1, scale: 1, kinds: allKinds, sendBuffer: defaultSendBuffer}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
}

// TestFaultsAreFound: an application that does everything wrong.
func TestFaultsAreFound(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := soak(settings{duration: time.Second, settle: time.Second, seed: 1, scale: 1, kinds: allKinds, faulty: true}, &out)
	if err == nil {
		t.Fatalf("nothing was found\n%s", &out)
	}
	for _, want := range []string{
		"LOST: GET /hello",
		`wrong: body "Hello, world!", want "Hello, World!"`,
		"the connection ended without an answer",
		"goroutines: ",
		"descriptors: ",
		"files of bodies or answers are left",
		"heap in use has grown",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not found: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("\n%s", &out)
	}
}

func TestContent(t *testing.T) {
	c := content{start: period - 5, size: 3 * period}
	b := c.bytes()
	if len(b) != c.size || !bytes.Equal(b[5:100], pattern[:95]) {
		t.Fatalf("%d bytes, or not those of the pattern", len(b))
	}
	var whole checker
	for whole.want = c; len(b) > 0; b = b[min(len(b), 777):] {
		if _, err := whole.Write(b[:min(len(b), 777)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := whole.whole(); err != nil {
		t.Error(err)
	}
	if _, err := whole.Write([]byte{1}); err == nil {
		t.Error("a byte too many was accepted")
	}
	wrong := checker{want: content{10, 100}}
	if _, err := wrong.Write(pattern[11:50]); err == nil {
		t.Error("bytes from another place were accepted")
	}
	if wrong.whole() == nil {
		t.Error("a body that is not whole was accepted")
	}
}

func TestFrames(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 300000} {
		payload := content{7, n}.bytes()
		for _, mask := range []uint32{0, 0x01020304} {
			raw := appendFrame(nil, binaryFrame, payload, mask)
			code, got, err := readFrame(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil || code != binaryFrame || !bytes.Equal(got, payload) {
				t.Errorf("%d bytes, mask %x: frame %d of %d bytes, error %v", n, mask, code, len(got), err)
			}
		}
	}
	// RFC 6455 sections 1.3 and 5.7.
	if got := acceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("accept key %q", got)
	}
	hello := appendFrame(nil, 1, []byte("Hello"), 0x37fa213d)
	if want := "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; string(hello) != want {
		t.Errorf("frame %x, want %x", hello, want)
	}
}

// TestFigures: each figure that does not add up is a fault of its own.
func TestFigures(t *testing.T) {
	for i, change := range []func(*snapshot){
		func(*snapshot) {}, // the only one without a fault
		func(s *snapshot) { s.Stats.Connections = map[string]int{"queued": 1} },
		func(s *snapshot) { s.Stats.BusyThreads++ },
		func(s *snapshot) { s.Stats.RequestsCount, s.App.Calls = 1, 1 },
		func(s *snapshot) { s.Stats.RequestsCount, s.Stats.Hijacked = 1, 1 },
		func(s *snapshot) { s.Stats.Panics++ },
		func(s *snapshot) { s.Stats.Paused++ },
		func(s *snapshot) { s.Stats.HeldFiles++ },
		func(s *snapshot) { s.Stats.HeldBodies++ },
		func(s *snapshot) { s.App.LateTaken++ },
		func(s *snapshot) { s.App.Sockets++ },
		func(s *snapshot) { s.Goroutines = map[string]int{"main.x": 1} },
		func(s *snapshot) { s.Resting = maxThreads + spareGoroutines + 1 },
		func(s *snapshot) { s.Descriptors = map[string]int{"socket": 1} },
		func(s *snapshot) { s.BodyFiles = []string{"x"} },
		func(s *snapshot) { s.Heap += heapTolerance + 1 },
		func(s *snapshot) { s.Log = map[string]int{"ERROR x": 1} },
	} {
		r := report{before: &snapshot{}, after: &snapshot{}}
		change(r.after)
		r.judge()
		if want := min(i, 1); len(r.faults) != want {
			t.Errorf("change %d: faults %q, want %d", i, r.faults, want)
		}
	}
	r := report{shutdown: &snapshot{Own: 1, Goroutines: map[string]int{"main.main": 1}, Resting: 1}}
	if r.judgeShutdown(); len(r.faults) != 1 {
		t.Errorf("after the shutdown: faults %q, want 1", r.faults)
	}
}

// TestExcuses: a stall of this process excuses what came too late, but not what
// is wrong.
func TestExcuses(t *testing.T) {
	now := time.Now()
	c := &client{tally: &tally{}, watch: newWatch(), began: now}
	late := fmt.Errorf("%w: %w", errBeforeAnswer, io.EOF)
	c.lost(2, "before: %v", late)
	c.watch.look(now.Add(stallLimit / 2))
	c.lost(1, "after a little pause: %v", late)
	c.watch.look(now.Add(3 * stallLimit))
	c.lost(4, "late: %v", late)
	c.check((&checker{want: content{0, 1}}).whole(), "%v", (&checker{want: content{0, 1}}).whole())
	if c.tally.lost != 3 || c.tally.excused != 4 || c.tally.unexpected != 4 {
		t.Errorf("%d lost, %d excused, %d unexpected; want 3, 4, 4", c.tally.lost, c.tally.excused, c.tally.unexpected)
	}
	c.began = now.Add(4 * stallLimit)
	if c.watch.last = time.Now(); c.watch.since(c.began) {
		t.Error("a stall excuses what began after it")
	}
}

func TestGroups(t *testing.T) {
	const stack = "goroutine 7 [chan receive]:\nmain.wait(0x1)\n\t/a/b.go:3 +0x1\nmain.(*hoard).spoil.func1.1()\n\t/a/b.go:9 +0x1\ncreated by main.(*hoard).spoil.func1 in goroutine 5\n\t/a/b.go:8 +0x1\n"
	if got := groupOf(stack); got != "main.(*hoard).spoil.func1.1, started by main.(*hoard).spoil.func1" {
		t.Error(got)
	}
	if isResting(stack) {
		t.Error("a goroutine of the application was taken for one that rests")
	}
}

func TestRefusals(t *testing.T) {
	for _, args := range []string{"-d 0s", "-settle -1s", "-scale 0", "-procs -1", "-kinds angry", "stray", "-serve"} {
		if err := run(strings.Fields(args), new(bytes.Buffer)); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
