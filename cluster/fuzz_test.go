package cluster

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/catamount-server/catamount/worker"
)

// FuzzReadMessages: whatever a process writes, and however it arrives, its lines
// are read the same, each at most once, and the end comes last.
func FuzzReadMessages(f *testing.F) {
	f.Add([]byte("h12:1\nb12:0\np12:0\n"))
	f.Add([]byte("f12:0 the database is down\n\n\x00"))
	f.Add(bytes.Repeat([]byte("x"), 2*longestLine))
	f.Add(append(bytes.Repeat([]byte("x"), longestLine), "\np1:0\n"...))
	f.Fuzz(func(t *testing.T, written []byte) {
		read := func(r io.Reader) (got []string) {
			readMessages(r, func(m worker.Message, err error) { got = append(got, fmt.Sprint(m, err)) })
			return got
		}
		got := read(bytes.NewReader(written))
		if last := fmt.Sprint(worker.Message{}, io.EOF); got[len(got)-1] != last {
			t.Errorf("the last event is %s", got[len(got)-1])
		}
		if len(got) > bytes.Count(written, []byte("\n"))+2 {
			t.Errorf("%d events of %d lines", len(got), bytes.Count(written, []byte("\n")))
		}
		if slowly := read(iotest.OneByteReader(bytes.NewReader(written))); !slices.Equal(got, slowly) {
			t.Errorf("byte by byte: %q, want %q", slowly, got)
		}
	})
}

// TestReaderStops: what was read of a line when the reader is stopped is not
// lost.
func TestReaderStops(t *testing.T) {
	written := "h12:1\nb12:0\np12"
	var got []worker.Kind
	unread := readMessages(io.MultiReader(bytes.NewReader([]byte(written)), iotest.ErrReader(os.ErrDeadlineExceeded)),
		func(m worker.Message, err error) {
			if err != nil {
				t.Error(err)
			}
			got = append(got, m.Kind)
		})
	if string(unread) != "p12" || !slices.Equal(got, []worker.Kind{worker.KindHello, worker.KindBoot}) {
		t.Errorf("read %q, and %q is left", got, unread)
	}
}

// FuzzReadState: a state that another program has left is read or refused.
func FuzzReadState(f *testing.F) {
	f.Add([]byte(`{"format":1,"target":0,"next":-1,"programs":[{"exe":9}],"workers":[{"pid":3}]}`))
	f.Add([]byte(`{"format":1,"target":1}`))
	f.Add([]byte(`{"format":2,"programs":[{}],"total":{"statuses":{"2xx":1}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		fd, err := unix.MemfdCreate("state", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if len(text) > 0 {
			if _, err := unix.Write(fd, text); err != nil {
				t.Fatal(err)
			}
		}
		s, _, err := readState(fmt.Sprint(fd))
		if err != nil {
			return
		}
		_ = s.Programs[s.Target]
		if s.check() == nil {
			for _, w := range s.Workers {
				_ = s.Programs[w.Program]
			}
		}
		_ = s.descriptors()
	})
}

// TestStateKeepsEverything that it is given.
func TestStateKeepsEverything(t *testing.T) {
	s := &state{
		Format: stateFormat, Argv0: "app", Page: 5, HandOver: [2]int{6, 7}, Next: -1,
		Programs: []stateProgram{{Exe: 8, Preload: -1, Directory: 9}},
		Workers:  []stateWorker{{PID: 10, Pipe: 11, Check: 12, Unread: []byte("p1")}},
		Total:    worker.Stats{RequestsCount: 3, Statuses: map[string]uint64{"2xx": 3}},
	}
	fd, err := s.write()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	again, _, err := readState(fmt.Sprint(fd, " a reason"))
	if err != nil || again.check() != nil {
		t.Fatal(err, again.check())
	}
	if again.rolledBack != "a reason" || string(again.Workers[0].Unread) != "p1" || again.Total.Statuses["2xx"] != 3 {
		t.Errorf("got %+v", again)
	}
	if want := []int{5, 6, 7, 8, 9, 11, 12}; !slices.Equal(again.descriptors(), want) {
		t.Errorf("descriptors %v, want %v", again.descriptors(), want)
	}
	again.Workers[0].Program = 1
	if err := again.check(); err == nil {
		t.Error("a worker of a program that there is not")
	}
	again.Format = 99
	if err := again.check(); err == nil || !contains(err.Error(), "its format is 99, want 1") {
		t.Error(err)
	}
	if _, _, err := readState("2"); err == nil || !contains(err.Error(), "want a descriptor") {
		t.Errorf("standard error is no state: %v", err)
	}
}
