// Command catamount serves the built-in demo app with the Catamount HTTP
// server, which is the quickest way to try the server with curl, a browser or
// a load generator.
//
//	catamount serve [flags]   serve the demo app until INT or TERM
//	catamount version         print the version
//	catamount help            print the commands; "catamount serve -h" the flags
//
// With -w it runs a master with workers. It exits with 0 after an orderly end, with
// 1 when serving failed, with 2 when its arguments are wrong, and with 78 when
// they make no sense together.
//
// Everything that serves lives in the package catamount: this program is the
// application, and what any other application's main function looks like.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
