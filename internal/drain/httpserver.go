package drain

import (
	"net/http"
	"reflect"
	"sync"
	"unsafe"
)

// httpServer returns the *http.Server that srv is, or that it embeds and so serves with.
// It is nil if there is none.
func httpServer(srv Server) *http.Server {
	if h, ok := srv.(*http.Server); ok {
		return h
	}
	v := reflect.ValueOf(srv)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.Anonymous || !f.IsExported() {
			continue
		}
		field, err := v.FieldByIndexErr(f.Index)
		if err != nil {
			continue // below an embedded pointer that is nil
		}
		if f.Type == reflect.TypeFor[http.Server]() && field.CanAddr() && field.Addr().CanInterface() {
			return field.Addr().Interface().(*http.Server)
		}
		if f.Type == reflect.TypeFor[*http.Server]() && field.CanInterface() {
			return field.Interface().(*http.Server)
		}
	}
	return nil
}

// takeOnShutdown takes the functions of RegisterOnShutdown from h, so that they are
// called once.
//
// net/http calls them in Shutdown only. But Shutdown at the beginning of a drain would
// close connections whose clients have not been told so, and lose the requests that are
// just coming. So this function reaches for the list itself. If a later net/http keeps
// them elsewhere, it finds nothing, and Shutdown calls them, which is late.
func takeOnShutdown(h *http.Server) (fns []func()) {
	v := reflect.ValueOf(h).Elem()
	mu, list := v.FieldByName("mu"), v.FieldByName("onShutdown")
	if !mu.IsValid() || mu.Type() != reflect.TypeFor[sync.Mutex]() ||
		!list.IsValid() || list.Type() != reflect.TypeFor[[]func()]() {
		return nil
	}
	lock := (*sync.Mutex)(unsafe.Pointer(mu.UnsafeAddr()))
	lock.Lock()
	defer lock.Unlock()
	at := (*[]func())(unsafe.Pointer(list.UnsafeAddr()))
	fns, *at = *at, nil
	return fns
}
