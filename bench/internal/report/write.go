package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/catamount-server/catamount/bench/internal/result"
)

// Write writes report.md, report.html and plots/*.svg into directory.
func Write(directory string, results *result.Results) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	chapters := chaptersOf(results)
	var page bytes.Buffer
	if err := writeHTML(&page, chapters, verdictsOf(results)); err != nil {
		return fmt.Errorf("report.html: %w", err)
	}
	if err := os.WriteFile(filepath.Join(directory, "report.html"), page.Bytes(), 0o644); err != nil {
		return err
	}
	text := markdown(chapters, verdictsOf(results))
	if err := os.WriteFile(filepath.Join(directory, "report.md"), []byte(text), 0o644); err != nil {
		return err
	}
	for _, c := range chapters {
		if err := writePlots(filepath.Join(directory, "plots"), c); err != nil {
			return err
		}
	}
	return nil
}

// writePlots writes a chapter's plots into directory.
func writePlots(directory string, c chapter) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for _, p := range c.Plots {
		if err := os.WriteFile(filepath.Join(directory, p.File), []byte(p.SVG), 0o644); err != nil {
			return err
		}
	}
	return nil
}
