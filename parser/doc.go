// Package parser turns bytes into HTTP/1.x requests.
package parser
