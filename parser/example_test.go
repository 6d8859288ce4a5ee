package parser_test

import (
	"fmt"

	"github.com/catamount-server/catamount/parser"
)

func ExampleHead_Parse() {
	limits := parser.Limits{Body: 1 << 20}.WithDefaults()
	var head parser.Head

	buf := []byte("GET /cats?big=1 HTTP/1.1\r\nHost: exa")
	_, err := head.Parse(buf, &limits)
	fmt.Println(err)

	buf = append(buf, "mple.com\r\naccept: */*\r\n\r\n"...)
	n, err := head.Parse(buf, &limits)
	fmt.Println(n == len(buf), err)
	fmt.Printf("%s %s of %s\n", head.Method.In(buf), head.Path.In(buf), head.Host.In(buf))
	for _, f := range head.Fields {
		fmt.Printf("%v: %s\n", f.Known, f.Value.In(buf))
	}
	// Output:
	// parser: incomplete
	// true <nil>
	// GET /cats of example.com
	// Host: example.com
	// Accept: */*
}
