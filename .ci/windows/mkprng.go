// mkprng writes a bcryptprimitives.dll for Wine 8, which has none, and without
// which no Go program starts. It has no code: its only export, ProcessPrng, is
// forwarded to advapi32's SystemFunction036 (RtlGenRandom), which takes the same
// arguments and returns the same.
//
//	go run mkprng.go FILE
package main

import (
	"bytes"
	"encoding/binary"
	"log"
	"os"
)

const (
	sectionRVA = 0x1000 // where the loader puts the section, and what is in it
	headerSize = 0x200  // of the file
	dataSize   = 0x200
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: mkprng FILE")
	}
	if err := os.WriteFile(os.Args[1], append(headers(), exports()...), 0o755); err != nil {
		log.Fatal(err)
	}
}

// exports is the section: an export directory, its tables and their strings.
func exports() []byte {
	const functions, names, ordinals, dll, name, forward = 0x30, 0x34, 0x38, 0x60, 0x80, 0xa0
	d := make([]byte, dataSize)
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(d[at:], v) }
	put(12, sectionRVA+dll)
	put(16, 1) // the first ordinal
	put(20, 1) // functions
	put(24, 1) // names
	put(28, sectionRVA+functions)
	put(32, sectionRVA+names)
	put(36, sectionRVA+ordinals)
	put(functions, sectionRVA+forward) // inside the directory: a forwarder
	put(names, sectionRVA+name)
	copy(d[dll:], "bcryptprimitives.dll")
	copy(d[name:], "ProcessPrng")
	copy(d[forward:], "advapi32.SystemFunction036")
	return d
}

// headers are those of a DLL for amd64 with one section.
func headers() []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.LittleEndian, v) // to memory: cannot fail
		}
	}
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	binary.LittleEndian.PutUint32(dos[0x3c:], 0x40) // where the PE header is
	put(dos, []byte("PE\x00\x00"))
	// File header: machine, sections, time, symbols, their number, the size of the
	// optional header, EXECUTABLE_IMAGE | LARGE_ADDRESS_AWARE | DLL.
	put(uint16(0x8664), uint16(1), uint32(0), uint32(0), uint32(0), uint16(240), uint16(0x2022))
	// Optional header, PE32+: sizes of code and data, entry point, base of code.
	put(uint16(0x20b), uint8(14), uint8(0), uint32(0), uint32(dataSize), uint32(0), uint32(0), uint32(sectionRVA))
	// Image base, alignments, versions of the system, the image and the subsystem.
	put(uint64(0x180000000), uint32(0x1000), uint32(0x200), [6]uint16{6, 0, 0, 0, 6, 0}, uint32(0))
	// Sizes of image and headers, checksum, subsystem CUI, DYNAMIC_BASE | NX | HIGH_ENTROPY.
	put(uint32(0x2000), uint32(headerSize), uint32(0), uint16(3), uint16(0x0160))
	// Stack and heap, loader flags, sixteen directories of which the first is used.
	put(uint64(0x100000), uint64(0x1000), uint64(0x100000), uint64(0x1000), uint32(0), uint32(16))
	put(uint32(sectionRVA), uint32(0x100), make([]byte, 15*8))
	// Section header: INITIALIZED_DATA | READ.
	put([]byte(".edata\x00\x00"), uint32(dataSize), uint32(sectionRVA), uint32(dataSize), uint32(headerSize))
	put(uint32(0), uint32(0), uint16(0), uint16(0), uint32(0x40000040))
	return append(b.Bytes(), make([]byte, headerSize-b.Len())...)
}
