package preload

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func tableOf(t testing.TB, fill func(*TableBuilder) error) *Table {
	t.Helper()
	d := preloaded(t, func(b *Builder) error {
		builder, err := b.Table("table")
		if err != nil {
			return err
		}
		if err := fill(builder); err != nil {
			return err
		}
		return builder.Close()
	})
	table, err := d.Table("table")
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTable(t *testing.T) {
	for _, count := range []int{1, 2, 3, 4, 5, 1000, 20_000} {
		table := tableOf(t, func(b *TableBuilder) error {
			for i := range count {
				if err := b.Put("key "+strconv.Itoa(i), []byte(strings.Repeat("v", i%50)+strconv.Itoa(i))); err != nil {
					return err
				}
			}
			return nil
		})
		if table.Len() != count {
			t.Errorf("%d keys, want %d", table.Len(), count)
		}
		i := 0
		for key, value := range table.All() {
			if want := "key " + strconv.Itoa(i); key != want || value != strings.Repeat("v", i%50)+strconv.Itoa(i) {
				t.Fatalf("of %d, number %d is %q: %q", count, i, key, value)
			}
			if got, ok := table.Get(key); !ok || got != value {
				t.Fatalf("of %d, %q is %q, %t", count, key, got, ok)
			}
			if got, ok := table.Get(key + "x"); ok {
				t.Fatalf("of %d, %qx is %q", count, key, got)
			}
			i++
		}
		for range table.All() {
			break
		}
	}
}

// TestTableCollisions: keys that all fall on the same bucket.
func TestTableCollisions(t *testing.T) {
	const count = 64
	mask := uint64(bucketCount(count) - 1)
	var keys []string
	for i := 0; len(keys) < count; i++ {
		if key := strconv.Itoa(i); hashOf(key)&mask == mask { // the last one
			keys = append(keys, key)
		}
	}
	table := tableOf(t, func(b *TableBuilder) error {
		for _, key := range keys {
			if err := b.Put(key, []byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
	for _, key := range keys {
		if got, ok := table.Get(key); !ok || got != key {
			t.Errorf("%q is %q, %t", key, got, ok)
		}
	}
	if got := slices.Collect(maps.Keys(maps.Collect(table.All()))); len(got) != count {
		t.Errorf("%d keys", len(got))
	}
}

func TestBucketCount(t *testing.T) {
	for entries := int64(0); entries < 5000; entries++ {
		n := bucketCount(entries)
		if n&(n-1) != 0 || n < 2*entries || n > max(4*entries, 2) {
			t.Fatalf("%d buckets for %d entries", n, entries)
		}
	}
}

// TestTableValuesOverwrittenLater: Put has taken the value when it returns.
func TestTableValuesOverwrittenLater(t *testing.T) {
	value := []byte("first")
	table := tableOf(t, func(b *TableBuilder) error {
		err := b.Put("a", value)
		copy(value, "xxxxx")
		return err
	})
	if got, _ := table.Get("a"); got != "first" {
		t.Errorf("%q", got)
	}
}

func TestTableGetAllocatesNothing(t *testing.T) {
	table := tableOf(t, func(b *TableBuilder) error { return b.Put("key", []byte("value")) })
	if allocs := testing.AllocsPerRun(100, func() { table.Get("key") }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

const benchmarkKeys = 1_000_000

func benchmarkKey(i int) string { return fmt.Sprintf("key-%08d", i%benchmarkKeys) }

func benchmarkTable(b *testing.B) *Table {
	return tableOf(b, func(builder *TableBuilder) error {
		for i := range benchmarkKeys {
			if err := builder.Put(benchmarkKey(i), []byte("some value")); err != nil {
				return err
			}
		}
		return nil
	})
}

func benchmarkMap() map[string]string {
	m := make(map[string]string)
	for i := range benchmarkKeys {
		m[benchmarkKey(i)] = strings.Clone("some value")
	}
	return m
}

// BenchmarkGet compares a table with a map that each process has for itself.
func BenchmarkGet(b *testing.B) {
	table, own := benchmarkTable(b), benchmarkMap()
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = benchmarkKey(i * 997)
	}
	for name, get := range map[string]func(string) (string, bool){
		"table": table.Get,
		"map":   func(key string) (string, bool) { value, ok := own[key]; return value, ok },
	} {
		b.Run(name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				if _, ok := get(keys[i%len(keys)]); !ok {
					b.Fatal("not there")
				}
				i++
			}
		})
	}
}

// BenchmarkCollection is a collection of garbage while a table, or a map, of a
// million keys is there.
func BenchmarkCollection(b *testing.B) {
	for name, load := range map[string]func() any{
		"table": func() any { return benchmarkTable(b) },
		"map":   func() any { return benchmarkMap() },
	} {
		b.Run(name, func(b *testing.B) {
			kept := load()
			for b.Loop() {
				runtime.GC()
			}
			runtime.KeepAlive(kept)
		})
	}
}
