package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"time"
)

// maxParts bounds the answer to a multipart upload, which has one entry a part.
const maxParts = 100

// received describes one uploaded file, or a raw body.
type received struct {
	Field  string `json:"field,omitempty"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// upload digests what comes without keeping it: a body of any size that the
// server lets through costs one small buffer.
func (a *app) upload(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	files, err := digest(r)
	if err != nil {
		status := http.StatusBadRequest
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "upload: "+err.Error(), status)
		return
	}
	writeJSON(w, struct {
		identity
		Files   []received `json:"files"`
		Seconds float64    `json:"seconds"` // reading and digesting
	}{a.identify(r), files, time.Since(start).Seconds()})
}

func digest(r *http.Request) ([]received, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		f := received{Type: r.Header.Get("Content-Type")}
		err := f.read(r.Body)
		return []received{f}, err
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	files := []received{}
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if len(files) == maxParts {
			return nil, fmt.Errorf("more than %d parts", maxParts)
		}
		f := describe(part)
		if err := f.read(part); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
}

func describe(part *multipart.Part) received {
	return received{Field: part.FormName(), Name: part.FileName(), Type: part.Header.Get("Content-Type")}
}

// read digests body to its end.
func (f *received) read(body io.Reader) error {
	hash := sha256.New()
	n, err := io.Copy(hash, body)
	f.Size, f.SHA256 = n, hex.EncodeToString(hash.Sum(nil))
	return err
}
