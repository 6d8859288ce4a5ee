package preload

import (
	"reflect"
	"testing"
	"time"
	"unsafe"
)

func TestPointers(t *testing.T) {
	type inner struct {
		OK   [3]int
		Tags [2][]string
	}
	type outer struct {
		ID    uint64
		Inner [4]inner
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{PutSlice(newBuilder(t), "s", []outer{}), `section "s": preload.outer.Inner[].Tags[] is a []string (slice): a slice that is shared must be without pointers`},
		{PutSlice(newBuilder(t), "s", []string{"a"}), `string is a string: `},
		{PutSlice(newBuilder(t), "s", []time.Time{{}}), `time.Time.loc is a *time.Location (ptr)`},
		{PutSlice(newBuilder(t), "s", []any{1}), `is a interface {} (interface)`},
		{PutSlice(newBuilder(t), "s", []error{nil}), `is a error (interface)`},
		{PutSlice(newBuilder(t), "s", []map[string]int{}), `is a map[string]int (map)`},
		{PutSlice(newBuilder(t), "s", []func(){}), `is a func() (func)`},
		{PutSlice(newBuilder(t), "s", []chan int{}), `is a chan int (chan)`},
		{PutSlice(newBuilder(t), "s", []uintptr{1}), `uintptr is a uintptr`},
		{PutSlice(newBuilder(t), "s", []struct{ P unsafe.Pointer }{}), `.P is a unsafe.Pointer`},
		{PutSlice(newBuilder(t), "s", []struct{}{{}}), `struct {} has no bytes`},
		{PutSlice(newBuilder(t), "s", [][0]int{}), `[0]int has no bytes`},
	} {
		complain(t, c.want, c.err, c.want)
	}
}

func TestNoPointers(t *testing.T) {
	type all struct {
		A bool
		B int8
		C [2]complex64
		D struct{ E float32 }
		_ [3]byte
		F time.Duration
		G [0]int
	}
	want := []all{{A: true, B: -1, C: [2]complex64{1, 2i}, F: time.Hour}, {}}
	d := preloaded(t, func(b *Builder) error { return PutSlice(b, "all", want) })
	if got, err := Slice[all](d, "all"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestLayoutOf: what makes a difference, and what makes none.
func TestLayoutOf(t *testing.T) {
	type celsius float64
	type fahrenheit float64
	differ := []any{
		struct{ A, B int32 }{}, struct{ B, A int32 }{}, struct{ A, B uint32 }{}, struct{ A int32 }{}, struct {
			A int32
			_ int32
			B int32
		}{}, [2]int32{}, [3]int32{}, [2][3]int8{}, [3][2]int8{}, int32(0), int64(0), uint64(0), float64(0), celsius(0), fahrenheit(0),
		struct{ T celsius }{}, struct{ T fahrenheit }{}, point{},
	}
	seen := map[string]any{}
	for _, v := range differ {
		layout := layoutOf(reflect.TypeOf(v))
		if other, ok := seen[layout]; ok {
			t.Errorf("%T and %T are both %s", v, other, layout)
		}
		seen[layout] = v
	}
	if a, b := layoutOf(reflect.TypeFor[point]()), layoutOf(reflect.TypeOf(point{X: 1})); a != b {
		t.Errorf("%s is not %s", a, b)
	}
}

// TestSliceOfOtherSize: a manifest whose sizes do not belong together.
func TestSliceOfOtherSize(t *testing.T) {
	d := preloaded(t, func(b *Builder) error { return PutSlice(b, "s", []int64{1, 2}) })
	for _, count := range []int64{-1, 0, 1, 3, 1 << 61, 1<<61 + 2} {
		d.sections[0].Count = count
		if got, err := Slice[int64](d, "s"); err == nil {
			t.Errorf("%d elements in 16 bytes: %v", count, got)
		}
	}
}
