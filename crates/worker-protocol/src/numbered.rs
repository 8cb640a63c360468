// SPDX-License-Identifier: MIT OR Apache-2.0
//! Enumerations that are numbers on the wire, to which later releases add.

/// Makes an enumeration that keeps numbers it does not know.
///
/// Values are compared and ordered by their numbers, so that `Other` with a known number is no other value.
macro_rules! numbered {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $( $(#[$doc:meta])* $variant:ident = $number:literal, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$doc])* $variant, )*
            /// A number that is not known here.
            Other(u64),
        }

        impl $name {
            /// Finds the value of a number.
            #[must_use]
            pub const fn from_number(number: u64) -> Self {
                match number {
                    $( $number => Self::$variant, )*
                    other => Self::Other(other),
                }
            }

            /// Returns the number.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self {
                    $( Self::$variant => $number, )*
                    Self::Other(number) => number,
                }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.number() == other.number()
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.number().cmp(&other.number())
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.number().hash(state);
            }
        }
    };
}

pub(crate) use numbered;
