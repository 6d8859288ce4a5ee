package report

import (
	"github.com/catamount-server/catamount/bench/internal/result"
)

func Write(directory string, results *result.Results) error { return nil }
func Fill(path string, results *result.Results) error { return nil }
