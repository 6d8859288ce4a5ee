package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/catamount-server/catamount/bench/internal/result"
)

// Fill writes anew what stands in a Markdown document between the lines
//
//	<!-- bench:NAME -->
//	<!-- /bench:NAME -->
//
// NAME is a scenario, for its plots and tables, or "taken", or "targets", or
// "claims" for those of the targets that a README shows. The plots go to a directory beside the document, of its name without ".md".
// Parts whose scenario has no results stay as they are.
func Fill(path string, results *result.Results) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	directory := strings.TrimSuffix(path, filepath.Ext(path))
	parts := map[string]string{}
	for _, c := range chaptersOf(results) {
		parts[c.Name] = c.part(filepath.Base(directory))
		if !strings.Contains(string(text), startMark(c.Name)) {
			continue
		}
		if err := writePlots(directory, c); err != nil {
			return err
		}
	}
	if verdicts := verdictsOf(results); len(verdicts) > 0 {
		parts["targets"] = verdictTable(verdicts).markdown()
		parts["claims"] = claims(verdicts)
	}
	if len(results.Sections) > 0 {
		s := &results.Sections[0]
		parts["taken"] = taken(s) + " Servers: " + versions(s) + ".\n"
	}
	filled, err := fill(string(text), parts)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(filled), 0o644)
}

// claims lists what a README says of speed: lines of the report.
func claims(verdicts []verdict) string {
	var b strings.Builder
	for _, v := range verdicts {
		if strings.HasPrefix(v.Claim, "hello: ") || strings.HasPrefix(v.Claim, "idle, 15000 idle: ") {
			fmt.Fprintf(&b, "- %s: **%s**\n", v.Claim, v.Value)
		}
	}
	return b.String()
}

// part is what a document shows of a chapter.
func (c chapter) part(directory string) string {
	var b strings.Builder
	for _, p := range c.Plots {
		fmt.Fprintf(&b, "![%s](%s/%s)\n", p.Title, directory, p.File)
	}
	for _, t := range c.Brief {
		fmt.Fprintf(&b, "\n%s:\n\n%s", t.Caption, t.markdown())
	}
	if n := len(c.Section.Failed()); n > 0 {
		fmt.Fprintf(&b, "\n%d measurements failed and do not count.\n", n)
	}
	return b.String()
}

func startMark(name string) string { return "<!-- bench:" + name + " -->" }
func endMark(name string) string   { return "<!-- /bench:" + name + " -->" }

// fill replaces the parts that text has marks for.
func fill(text string, parts map[string]string) (string, error) {
	for name, part := range parts {
		before, rest, found := strings.Cut(text, startMark(name)+"\n")
		if !found {
			continue
		}
		_, after, found := strings.Cut(rest, endMark(name))
		if !found {
			return "", fmt.Errorf("%s has no %s after it", startMark(name), endMark(name))
		}
		text = before + startMark(name) + "\n" + part + endMark(name) + after
	}
	return text, nil
}
