# guardian FOLDER: waits until nobody holds the other end of its standard input any more, which is when the test has
# dropped its hosts or has died, by whatever signal. Then it ends every process on the networks that FOLDER/networks
# lists, and removes the folder.
folder=$1
cat >/dev/null

on_the_networks() {
    set --
    while read -r network; do
        set -- "$@" -o -lname "net:\[$network\]"
    done <"$folder/networks"
    [ $# = 0 ] || { shift && find /proc/[0-9]*/ns/net \( "$@" \) -printf '%h\n' 2>/dev/null | cut -d/ -f3; }
}

attempts=0
while processes=$(on_the_networks) && [ -n "$processes" ]; do
    # Five seconds. What survives that sleeps in the kernel, and nobody can end it.
    [ $attempts -lt 100 ] || exit 1
    attempts=$((attempts + 1))
    kill -9 $processes 2>/dev/null
    sleep 0.05
done
rm -rf "$folder"
