package preload

import (
	"fmt"
	"reflect"
	"strings"
	"unsafe"
)

// PutSlice writes a section of values. T must be without pointers, and so
// without strings, slices, maps and interfaces: of those only the address would
// be written. The error says where in T there is one.
func PutSlice[T any](b *Builder, name string, values []T) error {
	t := reflect.TypeFor[T]()
	if err := checkElement(t); err != nil {
		return fmt.Errorf("preload: section %.300q: %w", name, err)
	}
	p := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), uintptr(len(values))*t.Size())
	return b.put(section{Name: name, Kind: kindSlice, Count: int64(len(values)), Type: t.String(), Layout: layoutOf(t)}, p)
}

// Slice returns the values of a section that PutSlice has written with the same
// T, where they lie. Writing to them ends the process.
func Slice[T any](d *Data, name string) ([]T, error) {
	s, p, err := d.section(name, kindSlice)
	if err != nil {
		return nil, err
	}
	t := reflect.TypeFor[T]()
	if err := checkElement(t); err != nil {
		return nil, fmt.Errorf("preload: section %q: %w", name, err)
	}
	if s.Type != t.String() {
		return nil, fmt.Errorf("preload: section %q is %v, not of %v", name, s, t)
	}
	if layout := layoutOf(t); s.Layout != layout {
		return nil, fmt.Errorf("preload: section %q was written by a program whose %v is %.500s; here it is %.500s", name, t, s.Layout, layout)
	}
	size := int64(t.Size())
	if s.Count < 0 || s.Count > s.Bytes/size || s.Count*size != s.Bytes {
		return nil, fmt.Errorf("%w: section %q has %d bytes for %d times %d", ErrFormat, name, s.Bytes, s.Count, size)
	}
	if s.Count == 0 {
		return nil, nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&p[0])), s.Count), nil
}

func checkElement(t reflect.Type) error {
	if where := pointerIn(t, t.String()); where != "" {
		return fmt.Errorf("%s: a slice that is shared must be without pointers", where)
	}
	if t.Size() == 0 {
		return fmt.Errorf("%v has no bytes", t)
	}
	return nil
}

// pointerIn says where in a type there is something that is of no use to
// another process; "" is nowhere.
func pointerIn(t reflect.Type, path string) string {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if where := pointerIn(f.Type, path+"."+f.Name); where != "" {
				return where
			}
		}
		return ""
	case reflect.Array:
		return pointerIn(t.Elem(), path+"[]")
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return ""
	}
	if t.String() == t.Kind().String() {
		return fmt.Sprintf("%s is a %v", path, t)
	}
	return fmt.Sprintf("%s is a %v (%v)", path, t, t.Kind())
}

// layoutOf describes a type so that two are only the same when each value of
// one is a value of the other, and means the same.
func layoutOf(t reflect.Type) string {
	var text strings.Builder
	describe(&text, t)
	return text.String()
}

func describe(text *strings.Builder, t reflect.Type) {
	if path := t.PkgPath(); path != "" {
		fmt.Fprintf(text, "%s.%s ", path, t.Name())
	}
	switch t.Kind() {
	case reflect.Struct:
		text.WriteString("struct{")
		for i := range t.NumField() {
			f := t.Field(i)
			fmt.Fprintf(text, "%s@%d ", f.Name, f.Offset)
			describe(text, f.Type)
			text.WriteString("; ")
		}
		fmt.Fprintf(text, "}%d", t.Size())
	case reflect.Array:
		fmt.Fprintf(text, "[%d]", t.Len())
		describe(text, t.Elem())
	default:
		text.WriteString(t.Kind().String()) // int has the size that it has on this kind of machine
	}
}
