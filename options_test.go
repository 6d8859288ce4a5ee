package catamount

import (
	"log/slog"
	"net/http"
	"reflect"
	"testing"
	"time"
)

// Every field of Server must have an effect: what is set reaches the worker, or
// is used by the functions that are named here.
func TestEveryFieldIsUsed(t *testing.T) {
	elsewhere := map[string]bool{"Addr": true, "BaseContext": true} // ListenAndServe, Serve
	logger := slog.New(slog.DiscardHandler)
	fields := reflect.TypeFor[Server]()
	for i := range fields.NumField() {
		field := fields.Field(i)
		if !field.IsExported() || elsewhere[field.Name] {
			continue
		}
		t.Run(field.Name, func(t *testing.T) {
			plain := &Server{Logger: logger}
			set := &Server{Logger: logger}
			value := reflect.ValueOf(set).Elem().Field(i)
			switch v := value.Addr().Interface().(type) {
			case *int:
				*v = 7
			case *int64:
				*v = 7
			case *bool:
				*v = true
			case **bool:
				*v = new(false)
			case *string:
				*v = t.TempDir()
			case *time.Duration:
				*v = 7 * time.Second
			case **slog.Logger:
				*v = slog.Default()
			case *http.Handler:
				*v = http.NotFoundHandler()
			default:
				switch value.Kind() {
				case reflect.Func:
					value.Set(reflect.MakeFunc(value.Type(), nil))
				case reflect.Struct:
					for i := range value.NumField() {
						if part := value.Field(i); part.CanSet() && part.CanInt() {
							part.SetInt(7)
							break
						}
					}
				default:
					t.Fatalf("a field of type %v: how is it set?", value.Type())
				}
			}
			before, err := plain.options()
			if err != nil {
				t.Fatal(err)
			}
			after, _ := set.options()
			if reflect.DeepEqual(before, after) {
				t.Error("setting it changes nothing")
			}
		})
	}
}
