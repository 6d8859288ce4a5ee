package scenario

import (
	"fmt"
	"slices"

	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// All returns the table. The quick one has fewer connections.
func All(quick bool) []Scenario {
	return slices.Concat(requests(), bodies(), []Scenario{
		churn(), idle(quick), slowClients(quick), slowReaders(quick), slowHandlers(quick), latency(quick), scale(quick), deploy(quick),
	})
}

// requests are scenarios of small requests and answers.
func requests() []Scenario {
	get := func(app string, r load.Request) func(*turn) (Values, error) { return throughput(app, r, connections) }
	return []Scenario{
		{
			Name: "hello", Rounds: 4, Columns: costColumns,
			Question: "What does the smallest request cost, with a 13-byte answer?",
			Method:   "GET over 64 keep-alive connections.",
			Rows:     []Row{{Name: "hello", Servers: able(server.Hello), measure: get(server.Hello, load.Request{})}},
		},
		{
			Name: "pipeline16", Rounds: 3, Columns: costColumns,
			Question: "What does a request cost when sixteen come in one write, so that system calls hardly count?",
			Method:   "The requests of hello, sixteen in a write.",
			Rows:     []Row{{Name: "pipeline16", Servers: able(server.Hello), measure: get(server.Hello, load.Request{Pipeline: 16})}},
		},
		{
			Name: "headers", Rounds: 4, Columns: costColumns,
			Question: "What do header fields cost: a browser's 8, and 30 behind proxies that add theirs?",
			Method:   "The requests of hello with so many fields, Host among them.",
			Rows: []Row{
				{Name: "8 fields", Servers: able(server.Hello), measure: get(server.Hello, load.Request{Headers: 7})},
				{Name: "30 fields", Servers: able(server.Hello), measure: get(server.Hello, load.Request{Headers: 29})},
			},
		},
		{
			Name: "json", Rounds: 3, Columns: costColumns,
			Question: "How much of the difference is left when the handler does some work?",
			Method:   "20 records, 2 KiB, encoded for each request: by encoding/json in all Go servers, by json in Puma.",
			Rows:     []Row{{Name: "json", Servers: able(server.JSON), measure: get(server.JSON, load.Request{Headers: 7})}},
		},
	}
}

// bodies are scenarios of large requests and answers.
func bodies() []Scenario {
	upload, download := Scenario{
		Name: "upload", Rounds: 3, Columns: costColumns,
		Question: "What does a request body cost?",
		Method: "POST; the handler reads the whole body and answers with its size. 64 connections; 8, by closed loops, for the largest. " +
			"Catamount keeps bodies in memory, 64 MiB of all of them, and beyond that in a file; fasthttp, hertz and nbio keep them in memory whole.",
	}, Scenario{
		Name: "download", Rounds: 3, Columns: costColumns,
		Question: "What does a large answer cost, from memory and from a file?",
		Method:   "GET; 64 connections; 8, by closed loops, for the file. wrk reads 8 KiB at a time and may be slower than the server: see busy.",
	}
	const fewer = 8
	upload.Rows = []Row{
		{Name: "1 KiB", measure: throughput(server.Upload, load.Request{Body: 1 << 10}, connections)},
		{Name: "100 KiB", measure: throughput(server.Upload, load.Request{Body: 100 << 10}, connections)},
		{Name: "10 MiB", measure: throughputBy((*turn).loops, server.Upload, load.Request{Body: 10 << 20}, fewer)},
	}
	for i := range upload.Rows {
		upload.Rows[i].Servers = able(server.Upload, clustered)
	}
	download.Rows = []Row{
		{Name: "64 KiB from memory", Servers: able(server.Download, clustered), measure: throughput(server.Download, load.Request{}, connections)},
		{Name: "10 MiB from a file", Servers: able(server.File, clustered),
			measure: throughputBy((*turn).loops, server.File, load.Request{}, fewer)},
	}
	return []Scenario{upload, download}
}

func churn() Scenario {
	return Scenario{
		Name: "churn", Rounds: 3, Columns: costColumns,
		Question: "What does a connection cost that is used for one request?",
		Method:   "The requests of hello with Connection: close, over 64 connections at a time.",
		Rows: []Row{{Name: "churn", Servers: able(server.Goodbye),
			measure: throughput(server.Goodbye, load.Request{Close: true}, connections)}},
	}
}

// counted makes a row for each number of something.
func counted(numbers []int, format string, servers []string, measure func(n int) func(*turn) (Values, error)) []Row {
	var rows []Row
	for _, n := range numbers {
		rows = append(rows, Row{Name: fmt.Sprintf(format, n), X: float64(n), Servers: servers, measure: measure(n)})
	}
	return rows
}
