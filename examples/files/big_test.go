package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/examples/internal/serving"
)

// bigFile makes a file that takes little of the disk, for it is mostly holes,
// but whose parts differ. It returns the folder and the file's checksum.
func bigFile(t *testing.T) (root string, size int64, sum string) {
	size = 1 << 30
	if testing.Short() {
		size = 16 << 20
	}
	root = t.TempDir()
	file, err := os.Create(filepath.Join(root, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		if _, err := file.WriteAt(fmt.Append(nil, random.Uint64()), random.Int64N(size-20)); err != nil {
			t.Fatal(err)
		}
	}
	hash := sha256.New()
	if n, err := io.Copy(hash, file); err != nil || n != size {
		t.Fatal(n, err)
	}
	return root, size, hex.EncodeToString(hash.Sum(nil))
}

// A large file passes through whatever its size, in constant memory.
func TestBigFile(t *testing.T) {
	root, size, want := bigFile(t)
	s := serving.Start(t, &catamount.Server{Handler: files(root)})
	s.Get(t, "/folder/") // what the first request needs does not count
	memory := serving.WatchMemory()
	answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL+"/folder/big", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.ContentLength != size {
		t.Fatalf("%s, %d bytes", answer.Status, answer.ContentLength)
	}
	hash := sha256.New()
	for {
		n, err := io.CopyN(hash, answer.Body, size/64)
		memory.Look()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		t.Errorf("checksum %s, want %s", got, want)
	}
	memory.Check(t, 32<<20)
}

// When a client leaves in the middle, the handler ends, and the answer that was
// not delivered is counted.
func TestClientLeavesBigFile(t *testing.T) {
	root, size, _ := bigFile(t)
	served := make(chan struct{})
	handler := files(root)
	s := serving.Start(t, &catamount.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		handler.ServeHTTP(w, r)
	})})
	answer, err := s.Client.Do(serving.NewRequest(t, "GET", s.URL+"/folder/big", nil))
	if err != nil {
		t.Fatal(err)
	}
	memory := serving.WatchMemory()
	if n, err := io.CopyN(io.Discard, answer.Body, size/4); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	memory.Look()
	answer.Body.Close()
	serving.WaitFor(t, served)
	memory.Look()
	memory.Check(t, 32<<20)
	serving.Until(t, "the client's leave is counted", func() bool {
		undelivered := uint64(0)
		for _, n := range s.Catamount.Stats().WriteErrors {
			undelivered += n
		}
		return undelivered == 1
	})
}
