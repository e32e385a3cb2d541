// Reads Kubernetes objects in YAML on stdin and fails for a field that their types do not have.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	count, failed := 0, 0
	for {
		document, err := documents.Read()
		if err == io.EOF {
			break
		}
		_, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			fmt.Println("rejected:", kind, err)
			failed++
			continue
		}
		count++
	}
	fmt.Printf("%d objects accepted, %d rejected\n", count, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
