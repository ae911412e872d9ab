# shellcheck shell=bash
# Gets the programs into the cache, each below its name and version; sourced by tests/services.
# What is unpacked or built goes to a folder of its own that is renamed at the end: a program is there whole or not at all.

STAGING=""
remove_staging() { [[ -z $STAGING ]] || rm -rf "$STAGING"; }
trap remove_staging EXIT

home_of() {
    case "$1" in
    kafka) echo "$CACHE/kafka-$KAFKA_VERSION" ;;
    minio) echo "$CACHE/minio-$MINIO_VERSION" ;;
    versity) echo "$CACHE/versity-$VERSITY_VERSION" ;;
    duckdb) echo "$CACHE/duckdb-$DUCKDB_VERSION" ;;
    readers) echo "$CACHE/readers-$DELTALAKE_VERSION-$POLARS_VERSION" ;;
    spark) echo "$CACHE/spark-$SPARK_VERSION-$DELTA_SPARK_VERSION" ;;
    esac
}

# Calls `FUNCTION FOLDER` to fill the home of the service, unless it is there.
install_once() {
    local service="$1" fill="$2" home
    home="$(home_of "$service")"
    [[ ! -d $home ]] || return 0
    say "$service: installing into $home"
    STAGING="$(mktemp -d "$CACHE/.installing-$service.XXXXXX")"
    "$fill" "$STAGING"
    mv -T "$STAGING" "$home"
    STAGING=""
}

# Runs a command that talks much, and shows the end of its talk only when it fails.
quietly() {
    local log="$CACHE/install.log"
    "$@" >"$log" 2>&1 && return 0
    tail -n 40 "$log" >&2
    die "failed: $* (the whole log is $log)"
}

# The same for a command that needs the network, which may fail for a while: tried three times, half an hour each at most.
persistently() {
    local log="$CACHE/install.log" attempt
    for attempt in 1 2 3; do
        timeout --foreground 1800 "$@" >"$log" 2>&1 && return 0
        tail -n 40 "$log" >&2
        ((attempt == 3)) || { say "failed, trying again in $((attempt * 10)) s: $*" && sleep $((attempt * 10)); }
    done
    die "failed three times: $* (the whole log is $log)"
}

# Sees to it that `CHECK...` succeeds: installs Debian's package when it does not, this is Debian and we may.
need() {
    local package="$1"
    shift
    ! "$@" &>/dev/null || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        die "not found: $* (Debian: apt-get install $package)"
    fi
    say "installing Debian's $package"
    persistently apt-get update
    persistently apt-get install --yes --no-install-recommends "$package"
}

is_at_least() { [[ "$(printf '%s\n' "$1" "$2" | sort --version-sort | head -n 1)" == "$1" ]]; }

need_java() {
    need default-jre-headless command -v java
    local found
    found="$(java -version 2>&1 | sed -n 's/.* version "\([0-9.]*\).*/\1/p')" || die "java does not run: java -version fails"
    is_at_least "$JAVA_MINIMUM" "$found" || die "Java $JAVA_MINIMUM or newer is needed, and java is ${found:-of an unknown version}"
}

need_go() {
    local found
    command -v go >/dev/null ||
        die "Go $GO_MINIMUM or newer is needed to build $1: install it and put go on the PATH (Debian's own may be too old)"
    found="$(go env GOVERSION)" || die "go does not run: go env GOVERSION fails"
    found="${found#go}"
    is_at_least "$GO_MINIMUM" "$found" || die "Go $GO_MINIMUM or newer is needed to build $1, and $(command -v go) is $found"
}

install_kafka() {
    need_java
    need openssl command -v openssl
    install_once kafka fill_kafka
}

fill_kafka() {
    need maven command -v mvn
    persistently mvn --batch-mode --update-snapshots --file "$SUPPORT/pom.xml" -Dkafka.version="$KAFKA_VERSION" \
        dependency:copy-dependencies -DoutputDirectory="$1/libs"
}

install_minio() {
    need curl command -v curl
    install_once minio fill_minio
}

fill_minio() { build_go "$1" MinIO "github.com/minio/minio@$MINIO_VERSION"; }

install_versity() {
    need curl command -v curl
    install_once versity fill_versity
}

fill_versity() { build_go "$1" "the Versity gateway" "github.com/versity/versitygw/cmd/versitygw@$VERSITY_VERSION"; }

# A build of some minutes on two cores: it yields to whatever else runs.
build_go() {
    local folder="$1" name="$2" package="$3"
    need_go "$name"
    say "building $package; this takes some minutes, once"
    GOBIN="$folder" CGO_ENABLED=0 persistently nice -n 10 go install -trimpath -ldflags='-s -w' "$package"
}

install_duckdb() { install_python duckdb "import duckdb" fill_duckdb; }
fill_duckdb() { fill_python "$1" duckdb.txt; }

install_readers() { install_python readers "import deltalake, polars" fill_readers; }
fill_readers() { fill_python "$1" readers.txt; }

install_spark() {
    need_java
    install_python spark "import pyspark" fill_spark
}

# Delta's jars lie in jars-delta: what pyspark brings is complete in itself.
fill_spark() {
    need maven command -v mvn
    fill_python "$1" spark.txt
    persistently mvn --batch-mode --update-snapshots --global-settings "$READERS/maven-settings.xml" --file "$READERS/pom.xml" \
        -Ddelta.version="$DELTA_SPARK_VERSION" dependency:copy-dependencies -DincludeScope=runtime \
        -DexcludeGroupIds=org.scala-lang -DoutputDirectory="$1/jars-delta"
}

# Calls `FUNCTION FOLDER` to fill a virtual environment, unless the service has one in which `CHECK` runs: one breaks
# when the Python under it goes away.
install_python() {
    local service="$1" check="$2" fill="$3" home
    need python3 command -v python3
    home="$(home_of "$service")"
    if [[ -d $home ]] && ! "$home/bin/python" -c "$check" 2>/dev/null; then
        rm -rf "$home"
    fi
    install_once "$service" "$fill"
}

fill_python() {
    local folder="$1" requirements="$2"
    need python3-venv python3 -c 'import ensurepip'
    quietly python3 -m venv "$folder"
    persistently "$folder/bin/python" -m pip install --requirement "$READERS/$requirements"
}
