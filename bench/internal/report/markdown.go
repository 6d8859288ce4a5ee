package report

import (
	"fmt"
	"strings"
)

// markdown writes the whole report.
func markdown(chapters []chapter, verdicts []verdict) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\n" + preamble + "\n")
	if len(verdicts) > 0 {
		b.WriteString("\n## Targets\n\n" + verdictTable(verdicts).markdown())
	}
	for _, c := range chapters {
		fmt.Fprintf(&b, "\n## %s\n\n**%s** %s\n\n", c.Name, c.Question, c.Method)
		for _, p := range c.Plots {
			fmt.Fprintf(&b, "![%s](plots/%s)\n", p.Title, p.File)
		}
		for _, t := range c.Tables {
			fmt.Fprintf(&b, "\n%s:\n\n%s", t.Caption, t.markdown())
		}
		if failed := c.Section.Failed(); len(failed) > 0 {
			b.WriteString("\nThese measurements failed and do not count:\n\n")
			for _, f := range failed {
				fmt.Fprintf(&b, "- %s, %s, round %d: %s\n", f.Row, f.Server, f.Round, firstLine(f.Error))
			}
		}
		fmt.Fprintf(&b, "\n%s Servers: %s.\n", taken(c.Section), versions(c.Section))
	}
	return b.String()
}

// preamble holds for all scenarios.
const preamble = `Each server is a process of its own with GOMAXPROCS=1 on one processor, the load runs on another. Servers take turns,
round by round, each time as a fresh process. A figure is the median of the rounds with the smallest and largest in
brackets; ratios are taken within a round. CPU per request is what the kernel charged all processes of the server, divided
by the requests that were completed: unlike requests per second, it hardly depends on how fast the load is. "Busy" is how
much of its processor the server had. Measurements in which a request failed do not count.`

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func (t table) markdown() string {
	var b strings.Builder
	line := func(cells []string) {
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(t.Header)
	rule := make([]string, len(t.Header))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	line(rule)
	for _, row := range t.Rows {
		line(row)
	}
	return b.String()
}
