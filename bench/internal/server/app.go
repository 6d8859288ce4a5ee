package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The apps, each what one or several scenarios need to be answered.
const (
	Hello    = "hello"    // 13 bytes
	Goodbye  = "goodbye"  // 13 bytes; the request asks for the connection to be closed
	JSON     = "json"     // about 2 KiB, encoded anew by encoding/json for each request
	Upload   = "upload"   // how many bytes the request's body had
	Download = "download" // 64 KiB from memory
	File     = "file"     // 10 MiB from a file
	Big      = "big"      // /big: 8 MiB from memory; else hello
	Sleep    = "sleep"    // 50 ms, then hello
	Park     = "park"     // /park: hello once it is told "release"; else hello
)

// Sizes of answers in bytes, and how long Sleep sleeps.
const (
	DownloadSize = 64 << 10
	FileSize     = 10 << 20
	BigSize      = 8 << 20
	SleepTime    = 50 * time.Millisecond
)

// BigPath and ParkPath are where the apps of these names do what they are for.
const (
	BigPath  = "/big"
	ParkPath = "/park"
)

const (
	helloBody  = "Hello, World!"
	plainText  = "text/plain; charset=utf-8"
	jsonType   = "application/json"
	binaryType = "application/octet-stream"
)

// content is what the apps of a server answer with.
type content struct {
	download []byte // for Download and Big
	file     string // for File
	parked   parked
}

func newContent(spec Spec) *content {
	c := &content{file: FileIn(spec.Directory)}
	switch spec.App {
	case Download:
		c.download = pattern(DownloadSize)
	case Big:
		c.download = pattern(BigSize)
	}
	c.parked.gate = make(chan struct{})
	return c
}

// pattern is n printable bytes.
func pattern(n int) []byte {
	const line = "The quick brown fox jumps over the lazy dog, and the catamount looks on patiently.\n"
	return []byte(strings.Repeat(line, n/len(line)+1)[:n])
}

// FileIn returns where the file of the app File is in the bench's directory.
func FileIn(directory string) string { return filepath.Join(directory, "download.bin") }

// WriteFile makes the file of the app File.
func WriteFile(directory string) error {
	return os.WriteFile(FileIn(directory), pattern(FileSize), 0o644)
}

// A record is one of those that the app JSON answers with.
type record struct {
	ID    int      `json:"id"`
	Name  string   `json:"name"`
	Email string   `json:"email"`
	Tags  []string `json:"tags"`
	Score float64  `json:"score"`
}

// encodeRecords makes what a small application would have fetched and encodes it.
func encodeRecords() []byte {
	records := make([]record, 20)
	for i := range records {
		records[i] = record{ID: i + 1, Name: fmt.Sprintf("Name %d", i+1), Email: fmt.Sprintf("name%d@example.org", i+1),
			Tags: []string{"new", "unread"}, Score: float64(i) + 0.5}
	}
	text, err := json.Marshal(records)
	if err != nil {
		panic(err) // records holds nothing that JSON cannot
	}
	return text
}

// parked are handlers that wait until they are released.
type parked struct {
	inside  atomic.Int64
	release sync.Once
	gate    chan struct{}
}

func (p *parked) wait() {
	p.inside.Add(1)
	<-p.gate
	p.inside.Add(-1)
}

func (p *parked) free() { p.release.Do(func() { close(p.gate) }) }
